"""What all maps share. Its code knows no map, framework or kernel by name; comments say for whom a thing is there."""

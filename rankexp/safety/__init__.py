"""What keeps others' names, addresses and files from doing harm."""

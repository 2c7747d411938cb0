"""Words: options in, sentences and exit codes out. The only room that prints or exits; one command, one file."""

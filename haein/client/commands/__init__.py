"""The commands, by what they are about; haein/client/cli.py puts them together."""

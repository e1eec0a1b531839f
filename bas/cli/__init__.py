"""The console command, in one file for each group of verbs. A verb imports what takes seconds to import itself."""

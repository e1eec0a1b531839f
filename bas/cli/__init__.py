"""The console command, a file a verb. Light: what takes seconds to import is imported by the verb that needs it."""

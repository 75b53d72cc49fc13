"""`crawlscope up`: starts the processes, restarts those that die, and stops them."""

from crawlscope.cli import main

main()

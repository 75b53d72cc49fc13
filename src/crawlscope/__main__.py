from crawlscope.cli.main import main

main()

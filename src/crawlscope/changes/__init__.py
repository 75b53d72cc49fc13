"""Changes of pages: changedetection.io's reports, rescrapes and watches."""

"""The life of an index.

A generation is one index with its recipe: embedder, encoder and chunking (`recipe`). `repository` keeps the
generations in the database. Their states:

- `serving`: search asks it, and pages go into it. `repository.ensure_serving` adds the first one.
- `filling`: a worker (`pages.reindexing`) builds it beside the serving one (`repository.begin_reindexing`),
  on request or because this version indexes pages in another way. When it is complete, `repository.switch`
  makes it serve.
- `retired`: it served before, or another recipe replaced it while it was being built.
- `dropped`: its folder or collection is deleted.

`lifecycle` runs in the process that owns the indexes: it makes, checks and drops them. `opened` holds what a
process has open of the generations; `embedder` opens the embedder that an index was built with.
"""

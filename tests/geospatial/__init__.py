"""The job types of examples/geospatial, on real data: figures that a second tool confirms."""

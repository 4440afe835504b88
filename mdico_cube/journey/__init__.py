"""A recipe in, every stage of a run out: plan, build, sample, train, predict, evaluate, report.

Each file is imported for its own stages, so that building a cube does not load what training needs.
"""

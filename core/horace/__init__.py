"""Horace: files by content, snapshots going in and artifacts coming out."""

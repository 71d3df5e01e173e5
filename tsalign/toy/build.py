"""Temporary."""

from tsalign.toy.demonstrations import student_pairs


def student_preferences():
    return student_pairs(0, 600)

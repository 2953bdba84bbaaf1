"""Graders: is this answer good?"""

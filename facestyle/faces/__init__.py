"""Faces in photos: found (`detect`), cut out upright (`align`) and put back (`paste`)."""

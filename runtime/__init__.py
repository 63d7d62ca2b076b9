"""The target machine: frames in, results out. Needs numpy, opencv and Pillow, and the package of one engine to run on.

The main path is in :mod:`~proscale_deploy.runtime.segmenter`; around it, frames come from
:mod:`~proscale_deploy.runtime.source`, and results go through :mod:`~proscale_deploy.runtime.draw` to
:mod:`~proscale_deploy.runtime.sink` and to :mod:`~proscale_deploy.runtime.save`.
"""

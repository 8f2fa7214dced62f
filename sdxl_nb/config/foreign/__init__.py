"""What do the settings of other trainers mean here?

A file of kohya's scripts, OneTrainer and others in, settings of ours and a remark for what is lost out; and back.
"""

"""What the rooms share: pictures as buttons, downloads, children exchanged, themes, words for screen readers."""

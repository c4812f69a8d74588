"""What the engine counts time in: frames of the front end and of the phone CTC, and ticks of voice activity."""

FRAME_S = 0.01
PHONE_FRAME_S = 0.04
TICK_FRAMES = 8

"""The uvloop shell: sockets, timers and the log writer's thread."""

"""The C functions of plugins/ for what is before and after the network, on the GPU and on the CPU."""

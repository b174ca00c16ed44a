// The activation that a number names: 1 is SiLU, 2 GELU, 3 GELU by the hyperbolic tangent.
auto activated = [](float g) {
  if (activation == 1) return g / (1.0f + expf(-g));
  if (activation == 2) return g * 0.5f * (1.0f + erff(g * 0.70710678f));
  return g / (1.0f + expf(-1.5957691f * (g + 0.044715f * g * g * g)));
};

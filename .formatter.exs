[
  inputs: [
    "{mix,.formatter}.exs",
    "{build,config,lib,test,attack,bench,examples,livebooks,conformance}/**/*.{ex,exs}"
  ],
  # Those of Nx and StreamData, repeated here so that formatting needs no dependency.
  locals_without_parens: [
    defn: 2,
    defnp: 2,
    deftransform: 1,
    deftransform: 2,
    deftransformp: 1,
    deftransformp: 2,
    while: 3,
    all: :*,
    check: 1,
    check: 2,
    property: 1,
    property: 2
  ]
]

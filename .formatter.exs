[
  import_deps: if(System.get_env("EMILY_NO_NX") in [nil, ""], do: [:nx, :stream_data], else: []),
  inputs: ["{mix,.formatter}.exs", "{build,config,lib,test,bench,examples}/**/*.{ex,exs}"],
  line_length: 110
]

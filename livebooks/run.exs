# Runs the Elixir cells of a Livebook one after the other in this project, and prints what each gives.
#
#     mix run livebooks/run.exs livebooks/embeddings.livemd
#     mix run livebooks/run.exs livebooks/chat.livemd "Who are you?"
#
# The cell that installs packages is left out: the project has them. Inputs hold what they were made with, pictures are
# written to files, and the page's form is submitted with each of the texts that follow.

[path | texts] = System.argv()

unless Code.ensure_loaded?(Kino),
  do: raise("Livebooks take Kino and kino_vega_lite, which are not here")

Code.require_file("page.exs", __DIR__)
Code.require_file("cells.exs", __DIR__)

page = Page.open()
Cells.run(path, &Page.show(page, &1))
if texts != [], do: Page.submit(page, texts)

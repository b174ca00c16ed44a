defmodule Emily.Conformance.ScholarExclusions do
  @moduledoc false
  # Which of Scholar's own tests are left out, with the reason. `mix test.scholar --excluded` runs these alone, and with
  # `--binary` on Nx.BinaryBackend, where all of `nx` fail too.

  @reasons [
    nx:
      "expects numbers of Nx 0.9, which Scholar is locked to: singular values, solutions and a thousand steps of a " <>
        "descent, which Nx.BinaryBackend has otherwise too on this Nx",
    data: "downloads its data, by a package that is not there",
    closure: "has a tensor in a closure of defn, which Nx takes of Nx.BinaryBackend only"
  ]

  # By reason and module, the names of tests.
  @tests [
    {:nx, Scholar.CrossDecomposition.PLSSVDTest,
     [
       "test fit_transform test - :num_components set to 1",
       "test fit_transform test - all options are default",
       "test transform test"
     ]},
    {:nx, Scholar.Decomposition.KernelPCATest,
     [
       "doctest Scholar.Decomposition.KernelPCA.fit_transform/2 (3)",
       "doctest Scholar.Decomposition.KernelPCA.transform/2 (2)"
     ]},
    {:nx, Scholar.Decomposition.TruncatedSVDTest,
     [
       "doctest Scholar.Decomposition.TruncatedSVD.fit/2 (1)",
       "doctest Scholar.Decomposition.TruncatedSVD.fit_transform/2 (2)",
       "test fit test - all default options",
       "test fit_transform test - :num_components",
       "test fit_transform test - :num_iters",
       "test fit_transform test - :num_oversamples",
       "test fit_transform test - all default options"
     ]},
    {:nx, Scholar.Interpolation.BezierSplineTest,
     [
       "test bezier spline predict/2"
     ]},
    {:nx, Scholar.Linear.LinearRegressionTest,
     [
       "doctest Scholar.Linear.LinearRegression.fit/3 (1)",
       "doctest Scholar.Linear.LinearRegression.predict/2 (2)",
       "test fit test for shapes {1, 1}, {1, 1} and type {:f, 32} and sample_weights"
     ]},
    {:nx, Scholar.Linear.PolynomialRegressionTest,
     [
       "doctest Scholar.Linear.PolynomialRegression.fit/3 (1)"
     ]},
    {:nx, Scholar.Linear.RidgeRegressionTest,
     [
       "doctest Scholar.Linear.RidgeRegression.fit/3 (1)"
     ]},
    {:nx, Scholar.Manifold.TSNETest,
     [
       "test all default params",
       "test non-default exaggeration",
       "test non-default learning_rate",
       "test non-default max_iter",
       "test non-default metric",
       "test non-default num_components",
       "test non-default perplexity"
     ]},
    {:data, Scholar.Decomposition.PCATest,
     [
       "doctest Scholar.Decomposition.PCA.fit/2 (1)",
       "doctest Scholar.Decomposition.PCA.fit_transform/2 (5)",
       "doctest Scholar.Decomposition.PCA.incremental_fit/2 (2)",
       "doctest Scholar.Decomposition.PCA.partial_fit/2 (3)",
       "doctest Scholar.Decomposition.PCA.transform/2 (4)"
     ]},
    {:closure, Scholar.Cluster.SpectralClusteringTest,
     [
       "test properties works inside jit"
     ]},
    {:closure, Scholar.Metrics.ClassificationTest,
     [
       "doctest Scholar.Metrics.Classification.log_loss/3 (29)"
     ]},
    {:closure, Scholar.Metrics.RegressionTest,
     [
       "test mean_pinball_loss/3 mean_pinball_loss with axes"
     ]}
  ]

  def reasons, do: @reasons

  @doc "The tests that are left out, each with its reason. Raises for a name that no test has."
  def find(modules) do
    named =
      for module <- modules,
          test <- module.__ex_unit__().tests,
          into: %{},
          do: {{module, to_string(test.name)}, test}

    for {reason, module, names} <- @tests, name <- names do
      {named[{module, name}] || raise("no test of #{inspect(module)} is called #{name}"), reason}
    end
  end
end

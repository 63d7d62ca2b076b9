"""The build machine: a checkpoint in, files to deploy out. Needs torch and onnx.

The main path: :mod:`~proscale_deploy.export.config`, :mod:`~proscale_deploy.export.checkpoint` read what was trained,
:mod:`~proscale_deploy.export.model` is it in PyTorch, :mod:`~proscale_deploy.export.to_onnx` writes it as one file::

    config = load_config(Path("config.yaml"))
    weights = load_state_dict(Path("model_final.pth"))
    model = build_model(config.model)
    load_weights(model, weights)
    classes = classes_for(config.dataset, None, config.model.num_classes)
    export_onnx(config, model, classes, Path("model.onnx"), size=(800, 1344), weights_sha256=weights.sha256)
"""

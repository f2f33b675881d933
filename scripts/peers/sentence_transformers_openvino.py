"""sentence-transformers' own OpenVINO int8: its static quantization, then `CrossEncoder.predict`."""

import json
from pathlib import Path

import torch
from sentence_transformers import CrossEncoder, export_static_quantized_openvino_model
from serve import serve

FILE = "openvino_model_qint8_quantized.xml"


def make(request):
    """Quantize the model, and open it again."""
    folder, texts = request["folder"], Path(request["work"], "texts")
    texts.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps({"text": text}) for text in request["texts"]]
    (texts / "train.jsonl").write_text("\n".join(lines), encoding="utf-8")
    settings = {"device": "cpu", "backend": "openvino", "max_length": request["max_length"]}
    threads = {"INFERENCE_NUM_THREADS": str(request["threads"])}
    model = CrossEncoder(folder, **settings)
    model.save_pretrained(folder)
    export_static_quantized_openvino_model(model, None, folder, str(texts), "default", "train", "text")
    model = CrossEncoder(folder, model_kwargs={"file_name": FILE, "ov_config": threads}, **settings)
    path = Path(folder, "openvino", FILE)

    def score(pairs):
        return model.predict(
            [tuple(pair) for pair in pairs], activation_fn=torch.nn.Identity(), show_progress_bar=False
        ).tolist()

    return score, [path, path.with_suffix(".bin")]


serve(make)

"""The sequence extractor keeps time and assets apart."""

import torch

from agents.models.extractors import AttentionPool, CNNLSTMFeatureExtractor


def small() -> CNNLSTMFeatureExtractor:
    return CNNLSTMFeatureExtractor(time_steps=4, assets=6, features=3, cnn_filters=(5, 4), lstm_units=(8, 7), output_dim=9).eval()


def test_the_output_has_the_promised_shape():
    assert small()(torch.randn(2, 4, 6, 3)).shape == (2, 9)


def test_rows_do_not_influence_each_other():
    extractor, rows = small(), torch.randn(3, 4, 6, 3)
    torch.testing.assert_close(extractor(rows)[1:2], extractor(rows[1:2]))


def test_the_order_of_the_steps_and_of_the_assets_matters():
    torch.manual_seed(0)
    extractor, rows = small(), torch.randn(1, 4, 6, 3)
    with torch.no_grad():
        extractor.output.bias.fill_(1.0)
    assert not torch.allclose(extractor(rows), extractor(rows.flip(1)))
    assert not torch.allclose(extractor(rows), extractor(rows.flip(2)))


def test_attention_weighs_every_step_and_its_weights_sum_to_one():
    torch.manual_seed(0)
    pool, values = AttentionPool(5), torch.randn(3, 4, 5)
    same = values[:, :1].expand(-1, 4, -1)
    torch.testing.assert_close(pool(same), values[:, 0])
    with torch.no_grad():
        pool.query.weight.zero_()
    torch.testing.assert_close(pool(values), values.mean(1))
    with torch.no_grad():
        pool.query.weight.fill_(50.0)
    scores = pool.query(torch.tanh(pool.key(values)))[..., 0]
    torch.testing.assert_close(pool(values), values[torch.arange(3), scores.argmax(1)], rtol=1e-2, atol=1e-2)

"""The batched twins are two independent plain networks."""

import torch

from agents.models.critics import TwinCritic


def alone(critic: TwinCritic, member: int, values: torch.Tensor) -> torch.Tensor:
    *hidden, last = critic.network.layers
    for layer in hidden:
        values = torch.relu(values @ layer.weight[member] + layer.bias[member])
    return (values @ last.weight[member] + last.bias[member]).squeeze(-1)


def test_each_member_equals_its_own_network():
    critic = TwinCritic(5, 2, (16, 8))
    state, action = torch.randn(9, 5), torch.randn(9, 2)
    values = critic(state, action)
    assert values.shape == (2, 9)
    for member in (0, 1):
        torch.testing.assert_close(values[member], alone(critic, member, torch.cat((state, action), -1)))


def test_the_members_start_differently_and_do_not_share_gradients():
    critic = TwinCritic(3, 1, (8,))
    values = critic(torch.randn(4, 3), torch.randn(4, 1))
    assert not torch.allclose(values[0], values[1])
    values[0].sum().backward()
    for layer in critic.network.layers:
        assert layer.weight.grad[0].abs().sum() > 0
        assert layer.weight.grad[1].abs().sum() == 0

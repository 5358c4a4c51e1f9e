"""`stirred_tank` against published steady states, step responses, closed forms and conservation laws."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twinloop.errors import ConfigError
from twinloop.twin.integrate import Solution, integrate, numerical_jacobian
from twinloop.twin.models import MODELS, parameter_problem, parameter_values
from twinloop.twin.predict import Motion
from twinloop.twin.reactor import StirredTank

F64 = npt.NDArray[np.float64]
REFERENCE = Path(__file__).parents[1] / ".." / "shared" / "data" / "cstr_reference" / "cstr_reference.json"
TANK = StirredTank()
SEBORG: dict[str, float | str] = {
    "mode": "continuous",
    "mass_kg": 100.0,
    "heat_capacity_j_per_kg_k": 239.0,
    "heat_transfer_w_per_k": 5e4 / 60,
    "pre_exponential_per_s": 7.2e10 / 60,
    "activation_energy_j_per_mol": 8750 * 8.314,
    "feed_temperature_k": 350.0,
    "flow_m3_per_s": 0.1 / 60,
}
LOW_AT_300_K = (324.4754434315989, 877.2529460809677)


@pytest.fixture(scope="module")
def reference() -> dict[str, Any]:
    if not REFERENCE.exists():
        pytest.skip(f"{REFERENCE} is not there")
    loaded: dict[str, Any] = json.loads(REFERENCE.read_text())
    return loaded


def motion(parameters: dict[str, float | str] | list[dict[str, float | str]]) -> Motion:
    """Free-running reactors without tags: every input from its parameter."""
    given_ = parameters if isinstance(parameters, list) else [parameters]
    values = [parameter_values(TANK, one) for one in given_]
    p = {name: np.array([one[name] for one in values]) for name in values[0]}
    u = np.stack([p[name] for name in TANK.input_parameters], axis=1)
    n = len(values)
    return Motion(TANK, u, p, np.zeros((n, 2), np.bool_), np.zeros((n, 2)), np.zeros(n))


def run(
    parameters: dict[str, float | str] | list[dict[str, float | str]],
    start: npt.ArrayLike,
    t_s: npt.ArrayLike,
    rtol: float = 1e-9,
) -> Solution:
    x0 = np.array(start, np.float64, ndmin=2)
    return integrate(
        motion(parameters), x0, t_s, rtol=rtol, atol=rtol * np.array(TANK.scales), max_steps=4000
    )


def steady_state(coolant_k: float, near: tuple[float, float]) -> tuple[float, float]:
    """Newton's method on the model's own derivative and Jacobian; finds unstable states as well."""
    field, x = motion({**SEBORG, "coolant_temperature_k": coolant_k}), np.array([near])
    for _ in range(50):
        x = x - np.linalg.solve(field.jacobian(x), field(x)[:, :, None])[:, :, 0]
    return float(x[0, 0]), float(x[0, 1])


@pytest.mark.parametrize(
    ("coolant_k", "concentration", "temperature_k"),
    [
        (300.0, 0.877252946081, 324.4754434316),
        (300.0, 0.499918285959, 350.0055286902),
        (300.0, 0.208761379615, 369.7049134226),
        (290.0, 0.951941232646, 312.6562088873),
        (305.0, 0.135196004732, 378.0652229545),
        (310.0, 0.099141375668, 383.8875929859),
    ],
)
def test_steady_states_are_those_of_the_book(
    coolant_k: float, concentration: float, temperature_k: float
) -> None:
    near = (round(temperature_k), round(concentration, 2) * 1000.0)
    temperature, mol_per_m3 = steady_state(coolant_k, near)
    assert temperature == pytest.approx(temperature_k, abs=1e-6)
    assert mol_per_m3 / 1000.0 == pytest.approx(concentration, abs=1e-9)


def test_a_stable_steady_state_is_where_a_long_integration_ends() -> None:
    end = run({**SEBORG, "coolant_temperature_k": 300.0}, (320.0, 900.0), [36_000.0], rtol=1e-11).x[0, 0]
    assert end[0] == pytest.approx(324.4754434316, abs=1e-6)
    assert end[1] / 1000.0 == pytest.approx(0.877252946081, abs=1e-8)


@pytest.mark.parametrize("coolant", ["303.0", "305.0", "290.0"])
def test_step_responses_are_those_of_the_reference(reference: dict[str, Any], coolant: str) -> None:
    expected = reference["seborg_ex2_5"]["steps_from_low_300K"][coolant]
    times = np.array(expected["t_min"]) * 60.0
    got = run({**SEBORG, "coolant_temperature_k": float(coolant)}, LOW_AT_300_K, times)
    np.testing.assert_allclose(got.x[:, 0, 0], expected["T"], rtol=0.0, atol=1e-3)
    np.testing.assert_allclose(got.x[:, 0, 1] / 1000.0, expected["CA"], rtol=0.0, atol=1e-5)


@pytest.mark.parametrize(
    ("minutes", "concentration", "temperature_k"),
    [(1.0, 0.858004343, 328.8056857), (5.0, 0.782514610, 333.2117346), (10.0, 0.786256696, 332.5991052)],
)
def test_the_step_to_303_k_goes_where_the_solvers_agree(
    minutes: float, concentration: float, temperature_k: float
) -> None:
    got = run({**SEBORG, "coolant_temperature_k": 303.0}, LOW_AT_300_K, [60.0 * minutes]).x[0, 0]
    assert got[0] == pytest.approx(temperature_k, rel=0.0, abs=1e-6)
    assert got[1] / 1000.0 == pytest.approx(concentration, rel=0.0, abs=1e-8)


def test_the_runaway_peaks_where_and_as_high_as_the_reference() -> None:
    times = np.arange(2.515, 2.526, 2e-5) * 60.0
    got = run({**SEBORG, "coolant_temperature_k": 305.0}, LOW_AT_300_K, times)
    peak = int(np.argmax(got.x[:, 0, 0]))
    assert got.x[peak, 0, 0] == pytest.approx(476.3235, abs=1e-3)
    assert times[peak] / 60.0 == pytest.approx(2.5207, abs=1e-4)


def test_every_reference_steady_state_is_at_rest(reference: dict[str, Any]) -> None:
    for coolant, states in reference["seborg_ex2_5"]["steady_states"].items():
        for state in states:
            x = np.array([[state["T"], state["CA"] * 1000.0]])
            rate = motion({**SEBORG, "coolant_temperature_k": float(coolant)})(x)
            assert np.abs(rate).max() < 1e-9, (coolant, state)


@pytest.mark.parametrize(
    ("temperature_k", "per_s"),
    [(300.0, 1.175600e-4), (350.0, 1.148742e-2), (358.15, 2.147445e-2), (368.15, 4.455128e-2)],
)
def test_the_default_kinetics_follow_the_arrhenius_table(temperature_k: float, per_s: float) -> None:
    p = motion({}).p
    got = TANK.rate_constant(np.array([temperature_k]), np.array([101_325.0]), p)[0]
    assert got == pytest.approx(per_s, rel=1e-6)


def test_an_order_below_one_runs_out_without_going_below_nothing() -> None:
    cold: dict[str, float | str] = {"reaction_heat_j_per_mol": 0.0, "reaction_order": 0.5}
    k = 1e10 * np.exp(-80_000 / (8.314 * 350.0))
    got = run(cold, (350.0, 1000.0), [60.0, 2.0 / k, 3600.0], rtol=1e-8).x[:, 0, 1]
    assert got[0] == pytest.approx(1000.0 * (1.0 - k * 60.0 / 2.0) ** 2, rel=1e-6)
    assert got[1] == pytest.approx(0.0, abs=0.05)
    assert got[2] == pytest.approx(0.0, abs=1e-5)


def test_an_isothermal_batch_converts_by_its_closed_form() -> None:
    hot: dict[str, float | str] = {"reaction_heat_j_per_mol": 0.0}
    times = np.array([1.0, 10.0, 30.0, 60.0, 600.0])
    k = 1e10 * np.exp(-80_000 / (8.314 * 358.15))
    got = run(hot, (358.15, 1000.0), times, rtol=1e-12)
    field = motion(hot)
    conversion = np.array([TANK.measure(x, field.u, field.p)[0, 2] for x in got.x])
    np.testing.assert_allclose(conversion, 1.0 - np.exp(-k * times), rtol=0.0, atol=1e-9)
    assert conversion[2] == pytest.approx(0.4749, abs=5e-4), "half in 30 s, not the 6.2 % of the tutorial"


def test_a_second_order_batch_converts_by_its_closed_form() -> None:
    cold: dict[str, float | str] = {"reaction_heat_j_per_mol": 0.0, "reaction_order": 2.0}
    k = 1e10 * np.exp(-80_000 / (8.314 * 350.0))
    got = run(cold, (350.0, 1000.0), [60.0], rtol=1e-11).x[0, 0, 1]
    assert got == pytest.approx(1000.0 / (1.0 + k * 60.0), rel=1e-8)


def test_pressure_multiplies_the_rate_by_its_power() -> None:
    field = motion({"pressure_exponent": 2.0})
    warm = np.array([350.0])
    plain = TANK.rate_constant(warm, np.array([101_325.0]), field.p)
    pressed = TANK.rate_constant(warm, np.array([3 * 101_325.0]), field.p)
    assert pressed / plain == pytest.approx(9.0)


def test_without_an_exponent_pressure_is_not_asked_for() -> None:
    field = motion([{}, {"pressure_exponent": 1.0}])
    k = TANK.rate_constant(np.full(2, 350.0), np.array([np.nan, 101_325.0]), field.p)
    assert np.isfinite(k).all()


def test_a_batch_ignores_its_feed() -> None:
    still = run({}, (340.0, 1000.0), [60.0]).x
    fed = run({"flow_m3_per_s": 1.0, "feed_temperature_k": 500.0}, (340.0, 1000.0), [60.0]).x
    assert still.tobytes() == fed.tobytes()


REACTORS = st.fixed_dictionaries(
    {
        "mode": st.sampled_from(["batch", "continuous"]),
        "mass_kg": st.floats(1.0, 1e5),
        "heat_capacity_j_per_kg_k": st.floats(200.0, 5000.0),
        "heat_transfer_w_per_k": st.floats(0.0, 1e4),
        "coolant_temperature_k": st.floats(250.0, 400.0),
        "pre_exponential_per_s": st.floats(0.0, 1e12),
        "reaction_order": st.sampled_from([0.5, 1.0, 1.5, 2.0]),
        "reaction_heat_j_per_mol": st.floats(-2e5, 5e4),
        "pressure_exponent": st.sampled_from([0.0, 0.5, -1.0]),
        "flow_m3_per_s": st.floats(0.0, 0.1),
    }
)


@settings(max_examples=60, deadline=None)
@given(parameters=REACTORS, temperature_k=st.floats(260.0, 420.0), left=st.floats(0.0, 1.0))
def test_conversion_stays_between_nothing_and_everything(
    parameters: dict[str, float | str], temperature_k: float, left: float
) -> None:
    start = (temperature_k, 1000.0 * left)
    solution = run(parameters, start, [1.0, 10.0, 60.0], rtol=1e-6)
    field = motion(parameters)
    assert solution.ok.all(), solution.why(0)
    for x in solution.x:
        conversion = TANK.measure(x, field.u, field.p)[0, 2]
        assert -1e-5 <= conversion <= 1.0


@settings(max_examples=40, deadline=None)
@given(parameters=REACTORS, temperature_k=st.floats(280.0, 380.0))
def test_an_adiabatic_batch_keeps_its_energy(
    parameters: dict[str, float | str], temperature_k: float
) -> None:
    sealed = {**parameters, "mode": "batch", "heat_transfer_w_per_k": 0.0}
    solution = run(sealed, (temperature_k, 1000.0), [5.0, 60.0, 600.0], rtol=1e-9)
    p = motion(sealed).p
    heat = p["density_kg_per_m3"][0] * p["heat_capacity_j_per_kg_k"][0]
    energy = heat * solution.x[:, 0, 0] + p["reaction_heat_j_per_mol"][0] * -1.0 * solution.x[:, 0, 1]
    assert solution.ok.all()
    np.testing.assert_allclose(
        energy, heat * temperature_k - p["reaction_heat_j_per_mol"][0] * 1000.0, rtol=1e-9
    )


@settings(max_examples=60, deadline=None)
@given(parameters=REACTORS, temperature_k=st.floats(280.0, 450.0), c=st.floats(1.0, 1000.0))
def test_the_jacobian_is_the_derivative_of_the_derivative(
    parameters: dict[str, float | str], temperature_k: float, c: float
) -> None:
    field, x = motion(parameters), np.array([[temperature_k, c]])
    numeric = numerical_jacobian(field, x)
    size = np.abs(numeric).max() + np.abs(field(x)).max()
    np.testing.assert_allclose(field.jacobian(x), numeric, atol=1e-6 * size + 1e-12)


def test_mixing_modes_and_orders_changes_no_reactor() -> None:
    kinds: list[dict[str, float | str]] = [
        {},
        {"reaction_order": 1.5},
        SEBORG,
        {"pressure_exponent": 1.0, "pressure_pa": 2e5},
    ]
    together = run(kinds, np.tile((350.0, 900.0), (4, 1)), [30.0]).x
    for i, kind in enumerate(kinds):
        assert run(kind, (350.0, 900.0), [30.0]).x[0, 0].tobytes() == together[0, i].tobytes()


def test_a_reaction_stiffer_by_a_million_is_followed_to_the_end() -> None:
    solution = run({"pre_exponential_per_s": 1e18}, (350.0, 1000.0), [60.0], rtol=1e-6)
    assert solution.ok.all()
    assert solution.steps[0] < 400
    assert solution.x[0, 0, 0] == pytest.approx(350.0 + 50_000 * 1000 / 4.2e6, abs=1e-2)


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("mass", 1.0, "did you mean 'mass_kg'"),
        ("mass_kg", 0, "greater than 0"),
        ("mass_kg", "heavy", "finite number"),
        ("mass_kg", float("nan"), "finite number"),
        ("mass_kg", True, "finite number"),
        ("flow_m3_per_s", -1.0, "not be negative"),
        ("mode", "bach", "one of batch, continuous"),
    ],
)
def test_a_parameter_that_cannot_be_used_is_named_with_what_can(
    name: str, value: float | str, words: str
) -> None:
    assert words in parameter_problem(TANK, name, value)
    with pytest.raises(ConfigError, match=f"R101: parameters.{name}: .*{words}"):
        parameter_values(TANK, {name: value}, asset="R101")


def test_every_model_is_consistent_with_itself() -> None:
    for name, model in MODELS.items():
        assert model.name == name
        assert len(model.states) == len(model.scales)
        assert len(model.inputs) == len(model.input_units) == len(model.input_parameters)
        assert len(model.outputs) == len(model.output_units) == len(model.shows)
        assert set(model.input_parameters) <= set(model.parameters)
        assert set(model.shows) <= {*model.states, ""}
        assert not any(parameter_problem(model, key, value) for key, value in model.parameters.items())


def test_every_parameter_and_its_default_is_documented() -> None:
    text = (Path(__file__).parents[1] / "docs" / "MODELS.md").read_text()
    for model in MODELS.values():
        for name, details in model.details.items():
            default = details.default if isinstance(details.default, str) else f"{details.default:g}"
            assert f"| `{name}` | {default} |" in text, f"{model.name}.{name}"
        for name in (*model.states, *model.inputs, *model.outputs):
            assert f"`{name}`" in text, f"{model.name}: {name}"

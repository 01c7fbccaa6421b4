"""How long a training goes on without a look, and when it says that it waits."""

import tensorflow as tf

from keras_resnet.training.pace import Pace


def test_waiting_for_input_is_told_once(capsys):
    pace = Pace(tf.distribute.get_strategy())
    pace.add(1, 100.0, 100.0)  # compiles and fills buffers
    pace.warn_once()
    pace.add(1, 0.2, 1.0)
    pace.warn_once()
    assert capsys.readouterr().err == ""
    for _ in range(2):
        pace.add(1, 0.8, 1.0)
        pace.warn_once()
    assert capsys.readouterr().err.count("50% of the time went into waiting") == 1


def test_steps_without_a_look_take_about_a_second():
    pace = Pace(tf.distribute.get_strategy())
    made = []
    for _ in range(6):
        made.append(pace.steps(at_most=1000))
        pace.add(made[-1], 0.0, made[-1] * 0.03)
    assert made == [1, 4, 16, 33, 33, 33]
    assert pace.steps(at_most=7) == 7

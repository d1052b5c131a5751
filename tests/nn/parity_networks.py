"""Small networks that together have every layer class, each in several settings: what test_keras_parity.py compares.

A function defines a Keras model; `@case(…)` says with which losses it is trained, and whether its layers run as in
training (it has no dropout then). Inputs called "masked…" are sequences padded with zeros, also where a step in the
middle is empty; they are given to us both padded and ragged.
"""

import keras

layers = keras.layers
CASES = []


def case(loss="categorical_crossentropy", training=False, **compiled):
    def add(function):
        CASES.append((function, dict(compiled, loss=loss), training, 3))
        return function

    return add


def sequences(name="masked", time=14, values=5):
    inputs = keras.Input((time, values), name=name)
    return inputs, layers.Masking()(inputs)


def softmax(x, classes=3):
    return layers.Dense(classes, activation="softmax")(x)


# ---- Dense layers, activations, merging -----------------------------------------------------------------------


@case()
def deep():
    return keras.Sequential([keras.Input((7,)), layers.Dense(33, activation="elu", kernel_initializer="he_normal"),
                             layers.Dense(17, activation="tanh"), layers.Dense(65, activation="selu"),
                             layers.Dense(9, activation="sigmoid", use_bias=False), layers.Dropout(0.4),
                             layers.Dense(5, activation="softmax")])


@case()
def wide_logits_layer():
    inputs = keras.Input((30,))
    x = layers.LeakyReLU(negative_slope=0.1)(layers.Dense(129)(inputs))
    x = layers.Dense(4)(layers.Dense(40, activation="silu")(x))
    return keras.Model(inputs, layers.Activation("softmax")(x))


@case()
def two_branches():
    a, b = keras.Input((12,), name="a"), keras.Input((3, 5), name="b")
    x = layers.Dense(20, activation="gelu")(layers.Dropout(0.2)(a))
    y = layers.Dense(6, activation="relu")(b)  # along the last axis of three rows
    y = layers.Dense(8, activation="softplus")(layers.Flatten()(y))
    z = layers.Concatenate()([x, y, a])
    z = layers.Dense(25, activation="relu")(layers.Dropout(0.5)(z))
    return keras.Model([a, b], softmax(z))


@case()
def shared_and_residual():
    a, b = keras.Input((10,), name="a"), keras.Input((10,), name="b")
    shared = layers.Dense(16, activation="tanh")
    both = layers.Add()([shared(a), shared(b)])
    x = layers.Add()([both, layers.Dense(16, activation="hard_sigmoid")(both)])
    x = layers.Reshape((4, 4))(x)
    x = layers.Concatenate(axis=1)([x, layers.Reshape((2, -1))(layers.Dense(8, activation="softsign")(a))])
    x = layers.Dense(3, activation="softmax")(layers.Flatten()(x))
    return keras.Model([a, b], softmax(layers.BatchNormalization(trainable=False)(x), 4))


@case()
def probabilities():
    """The last layer is not a softmax: the loss is taken from probabilities, normalised and clipped."""
    inputs = keras.Input((6,))
    x = layers.Dense(11, activation="relu6")(inputs)
    x = layers.Dense(7, activation="exponential", kernel_initializer="glorot_normal")(layers.ReLU(max_value=2.0)(x))
    return keras.Model(inputs, layers.Dense(3, activation="softplus")(x))


@case()
def sigmoids():
    """Keras on TensorFlow takes the loss from the inputs of the sigmoids, as if they were a softmax."""
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(3, activation="sigmoid")(layers.ELU(alpha=0.7)(layers.Dense(8)(inputs))))


@case(training=True)
def merging():
    a, b = keras.Input((8,), name="a"), keras.Input((8,), name="b")
    x, y = layers.Dense(9, activation="tanh")(a), layers.Dense(9)(b)
    z = [layers.Subtract()([x, y]), layers.Multiply()([x, y]), layers.Average()([x, y]), layers.Maximum()([x, y]),
         layers.Minimum()([x, y]), x + y, x - y, x * y]
    return keras.Model([a, b], softmax(layers.Concatenate()(z)))


@case(training=True)
def slopes():
    a, b = keras.Input((8,), name="a"), keras.Input((5, 3), name="b")
    x = layers.PReLU(alpha_initializer="random_normal")(layers.Dense(11)(a))
    y = layers.PReLU(shared_axes=[1], alpha_initializer="random_uniform")(layers.Dense(4)(b))
    y = layers.Softmax()(y)
    return keras.Model([a, b], softmax(layers.Concatenate()([x, layers.Flatten()(y)])))


@case(training=True)
def shapes():
    inputs = keras.Input((6, 4))
    x = layers.Permute((2, 1))(inputs)
    x = layers.Dense(5, activation="tanh")(x)
    y = layers.RepeatVector(3)(layers.Flatten()(x))
    x = layers.Concatenate()([layers.Flatten()(layers.Cropping1D((1, 1))(x)), layers.Flatten()(y),
                              layers.Flatten()(layers.ZeroPadding1D(2)(x))])
    return keras.Model(inputs, softmax(x))


# ---- Normalisation, convolution, pooling, attention -------------------------------------------------------------


@case(training=True)
def normalization():
    a, b = keras.Input((8,), name="a"), keras.Input((5, 3), name="b")
    x = layers.BatchNormalization()(layers.Dense(10)(a))
    x = layers.BatchNormalization(momentum=0.9, epsilon=1e-2, center=False)(layers.Dense(6, activation="tanh")(x))
    y = layers.BatchNormalization(scale=False)(layers.Dense(4)(b))
    y = layers.LayerNormalization(epsilon=1e-6)(y)
    z = layers.Concatenate()([layers.LayerNormalization()(x), layers.Flatten()(y),
                              layers.LayerNormalization(center=False)(a), layers.LayerNormalization(scale=False)(a)])
    return keras.Model([a, b], softmax(z))


@case(training=True)
def convolution():
    inputs = keras.Input((20, 4))
    x = layers.Conv1D(6, 3, activation="relu")(inputs)
    x = layers.MaxPooling1D(2)(layers.Conv1D(5, 4, strides=2, padding="same")(x))
    y = layers.AveragePooling1D(3, strides=2)(layers.Conv1D(4, 3, dilation_rate=2, padding="causal")(inputs))
    z = layers.Concatenate()([layers.Flatten()(x), layers.GlobalMaxPooling1D()(y), layers.GlobalAveragePooling1D()(y)])
    return keras.Model(inputs, softmax(z))


@case(training=True)
def masked_pooling():
    inputs, x = sequences()
    x = layers.Dense(7, activation="tanh")(x)
    return keras.Model(inputs, softmax(layers.GlobalAveragePooling1D()(x)))


@case(training=True)
def attention():
    inputs = keras.Input((9, 6))
    x = layers.MultiHeadAttention(2, 4)(inputs, inputs)
    x = layers.LayerNormalization()(layers.Add()([x, inputs]))
    y = layers.MultiHeadAttention(3, 2, value_dim=5, use_bias=False, output_shape=7)(x, inputs, use_causal_mask=True)
    return keras.Model(inputs, softmax(layers.Flatten()(y)))


@case(training=True)
def masked_attention():
    inputs, x = sequences()
    x = layers.Dense(6)(x)
    x = layers.MultiHeadAttention(2, 3)(x, x)
    return keras.Model(inputs, softmax(layers.GlobalAveragePooling1D()(x)))


@case(training=True)
def cross_attention():
    """Two sequences, each with a mask of its own: events without keys, and queries that are masked."""
    (a, x), (b, y) = sequences("masked_a", 8, 3), sequences("masked_b", 11, 4)
    x = layers.MultiHeadAttention(2, 3)(layers.Dense(5)(x), layers.Dense(6, activation="tanh")(y))
    return keras.Model([a, b], softmax(layers.LSTM(5)(x)))


# ---- Recurrent layers -------------------------------------------------------------------------------------------


@case(training=True)
def gru():
    inputs, x = sequences()
    x = layers.GRU(11, return_sequences=True)(x)
    x = layers.GRU(7, go_backwards=True, activation="relu", recurrent_activation="hard_sigmoid")(x)
    return keras.Model(inputs, softmax(x))


@case(training=True)
def gru_before():
    """The product with the state is taken before the reset gate is applied, and without biases."""
    inputs, x = sequences()
    x = layers.GRU(6, reset_after=False, return_sequences=True)(x)
    return keras.Model(inputs, softmax(layers.GRU(5, use_bias=False)(x)))


@case(training=True)
def lstm():
    inputs, x = sequences()
    x = layers.LSTM(9, return_sequences=True, unit_forget_bias=False)(x)
    return keras.Model(inputs, softmax(layers.LSTM(6, go_backwards=True, use_bias=False)(x)))


@case(training=True)
def simple():
    inputs, x = sequences()
    x = layers.SimpleRNN(8, return_sequences=True)(x)
    return keras.Model(inputs, softmax(layers.SimpleRNN(5, activation="relu")(x)))


@case(training=True)
def bidirectional():
    inputs, x = sequences()
    x = layers.Bidirectional(layers.GRU(5, return_sequences=True))(x)
    x = layers.Bidirectional(layers.LSTM(4, return_sequences=True), merge_mode="sum")(x)
    return keras.Model(inputs, softmax(layers.Bidirectional(layers.GRU(3), backward_layer=layers.GRU(
        3, go_backwards=True, reset_after=False))(x)))


@case(training=True)
def unmasked_recurrent():
    """Padding is looked at; the first layer's outputs at all steps are outputs of the model's end too."""
    inputs = keras.Input((10, 4))
    x = layers.GRU(5, return_sequences=True)(inputs)
    y = layers.LSTM(6, return_sequences=True, go_backwards=True)(x)
    return keras.Model(inputs, softmax(layers.Flatten()(layers.Concatenate()([x, y]))))


@case(training=True)
def masked_and_flattened():
    """All steps are looked at, so masked ones must be as Keras leaves them."""
    inputs, x = sequences(time=8)
    x = layers.GRU(5, return_sequences=True)(x)
    return keras.Model(inputs, softmax(layers.Flatten()(layers.Dense(3, activation="tanh")(x))))


@case(training=True)
def two_sequences():
    (a, x), (b, y) = sequences("masked_a", 12, 3), sequences("masked_b", 7, 4)
    x, y = layers.GRU(6)(x), layers.LSTM(5)(y)
    return keras.Model([a, b], softmax(layers.Concatenate()([x, y])))


# ---- Graphs, losses, penalties ----------------------------------------------------------------------------------


@case(loss={"many": "binary_crossentropy", "value": "mse", "side": "sparse_categorical_crossentropy"},
      loss_weights={"many": 1.0, "value": 0.25, "side": 0.5}, training=True)
def nested():
    """Nested models, one used twice, wrapped ones, several outputs of several losses."""
    a, b = keras.Input((6,), name="a"), keras.Input((3,), name="b")
    encoder = keras.Sequential([keras.Input((6,)), layers.Dense(5, activation="tanh"), layers.Dense(6)], name="encoder")
    x = encoder(encoder(a))
    i = keras.Input((6,))
    heads = keras.Model(i, [layers.Dense(3)(i), layers.Dense(4, activation="tanh")(i)], name="heads")
    p, q = heads(x)
    s = layers.Reshape((2, 5))(layers.Concatenate()([p, q, b]))
    s = layers.TimeDistributed(keras.Sequential([layers.Dense(4, activation="relu"), layers.Dense(3)]))(s)
    s = layers.TimeDistributed(layers.Dense(2, activation="tanh"))(s)
    z = layers.Concatenate()([layers.Flatten()(s), p + b])
    return keras.Model([a, b], [layers.Dense(4, activation="sigmoid", name="many")(z), layers.Dense(2, name="value")(z),
                                layers.Dense(3, activation="softmax", name="side")(q)])


@case(loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1), training=True)
def smooth_logits():
    inputs = keras.Input((9,))
    return keras.Model(inputs, layers.Dense(4)(layers.Dense(12, activation="mish")(inputs)))


@case(training=True)
def penalties():
    """Regularisers are a part of the loss, constraints hold after each step."""
    inputs, x = sequences(time=6)
    r, c = keras.regularizers, keras.constraints
    x = layers.GRU(4, kernel_regularizer="l1", recurrent_regularizer=r.L1L2(0.01, 0.02), recurrent_constraint="unit_norm")(x)
    x = layers.Dense(6, kernel_regularizer="l2", bias_regularizer=r.L1(0.1), kernel_constraint=c.MaxNorm(0.8))(x)
    x = layers.Dense(5, kernel_constraint=c.MinMaxNorm(0.6, 0.9, rate=0.5, axis=1), bias_constraint="non_neg")(x)
    return keras.Model(inputs, softmax(x))


@case(training=True)
def penalties_of_outputs():
    """Activity regularisers: of all steps, masked ones too, and of a layer that is used twice."""
    inputs, x = sequences(time=6)
    r = keras.regularizers
    x = layers.Dense(4, activation="tanh", activity_regularizer=r.L1L2(0.003, 0.01))(x)
    x = layers.GRU(5, activity_regularizer="l2")(x)
    both = layers.Dense(5, activity_regularizer=r.L1(0.02))
    return keras.Model(inputs, softmax(both(both(x))))


@case(loss="mae", training=True)
def steps_out():
    """An output for each step."""
    inputs = keras.Input((7, 4))
    return keras.Model(inputs, layers.Dense(2)(layers.LSTM(5, return_sequences=True)(inputs)))

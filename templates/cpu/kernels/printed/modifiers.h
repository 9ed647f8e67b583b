#pragma once
#include "../modifiers/both.h"
#include "../modifiers/softcap.h"
#include "../modifiers/alibi.h"
#include "../modifiers/key_bias.h"
#include "../modifiers/learned_sink.h"

typedef Both<Softcap, Both<Alibi, Both<KeyBias, LearnedSink>>> Modifiers;

#pragma once
#include "../modifiers/both.h"
#include "../modifiers/softcap.h"
#include "../modifiers/alibi.h"
#include "../modifiers/learned_sink.h"

typedef Both<Softcap, Both<Alibi, LearnedSink>> Modifiers;

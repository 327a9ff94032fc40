"""What EAH does outside of a plain causal prefill in one thread, and the tests that show it."""

from __future__ import annotations

from typing import NamedTuple


class Situation(NamedTuple):
    """One line of the table.

    Attributes:
        name: What a caller does.
        verdict: "works" or "refused".
        meaning: What that means.
        tests: Tests below `tests/`, as file::function.
    """

    name: str
    verdict: str
    meaning: str
    tests: tuple[str, ...]


SITUATIONS = (
    Situation(
        "several threads on one model",
        "works",
        "each thread has its own pass, findings and report",
        (
            "eah/test_threads.py::test_every_thread_gets_the_output_of_a_single_one",
            "eah/test_threads.py::test_every_thread_observes_its_own_prompts",
            "drop_in/check_passes.py::test_every_thread_gets_the_output_of_a_single_one",
        ),
    ),
    Situation(
        "`image_tokens` in one thread, the model in another",
        "refused",
        "a block holds for the thread that enters it",
        (
            "eah/test_threads.py::test_image_tokens_hold_for_the_thread_that_enters_the_block",
            "drop_in/check_passes.py::test_image_tokens_hold_for_the_thread_that_enters_the_block",
        ),
    ),
    Situation(
        "4-D masks with finite negatives",
        "works",
        "a bias of -50 or less hides a key",
        (
            "eah/test_bidirectional.py::test_masks_of_four_dimensions_are_counted_as_they_are",
            "drop_in/check_passes.py::test_finite_masks_hide_their_keys",
        ),
    ),
    Situation(
        "bidirectional and prefix-LM attention",
        "works",
        "counted as the kernel sees it",
        (
            "eah/test_bidirectional.py::test_a_kernel_that_is_told_to_be_bidirectional_is_counted_so",
            "eah/test_families.py::test_counts_and_head_are_the_oracles",
        ),
    ),
    Situation(
        "flex attention with windows, chunks, padding",
        "works",
        "the block mask is read",
        (
            "eah/test_bidirectional.py::test_windows_and_padding_are_those_of_eager_attention",
            "eah/test_families.py::test_flex_attention_is_counted_by_its_block_mask",
        ),
    ),
    Situation(
        "sparse attention chosen by the kernel's name",
        "refused",
        "by `eah.enable`",
        ("eah/test_families.py::test_a_family_that_would_be_wrong_is_refused",),
    ),
    Situation(
        "images by cross-attention",
        "refused",
        "by `eah.enable`",
        ("eah/test_families.py::test_a_family_that_would_be_wrong_is_refused",),
    ),
    Situation(
        "encoder-decoders",
        "refused",
        "by `eah.enable`",
        ("eah/test_families.py::test_a_family_that_would_be_wrong_is_refused",),
    ),
    Situation(
        "video tokens",
        "works",
        "they are vision tokens; `vision_tokens` chooses",
        (
            "eah/test_families.py::test_counts_and_head_are_the_oracles",
            "eah/test_find.py::test_vision_tokens_chooses_pictures_or_videos",
        ),
    ),
    Situation(
        "left padding with a span",
        "works",
        "padding is not counted",
        ("eah/test_passes.py::test_padding_is_not_counted_in_a_span",),
    ),
    Situation(
        "a prompt cut within or after its image (`prefill_chunk_size`)",
        "refused",
        "no pass sees all of it",
        (
            "eah/test_detection.py::test_a_prompt_that_is_cut_behind_its_image_is_refused",
            "drop_in/check_detection.py::test_a_prompt_that_is_cut_behind_its_image_is_refused",
            "eah/test_passes.py::test_an_image_that_is_split_over_passes_is_refused",
            "eah/test_passes.py::test_placeholders_behind_a_cached_image_are_refused",
            "drop_in/check_passes.py::test_an_image_that_is_split_over_passes_is_refused",
        ),
    ),
    Situation(
        "text after a cached image",
        "works",
        "untouched like a decode step, and reported so",
        (
            "eah/test_passes.py::"
            "test_text_behind_a_cached_image_is_untouched_and_the_report_says_so",
            "drop_in/check_passes.py::test_text_behind_a_cached_image_is_untouched",
        ),
    ),
    Situation(
        "an image after a copied cache, or one that EAH did not see",
        "works",
        "a copy knows its image tokens; a cache that was not seen is refused",
        (
            "eah/test_detection.py::test_an_image_behind_a_copied_cache_of_text_is_found",
            "eah/test_detection.py::test_an_image_behind_a_cache_that_was_not_seen_is_refused",
        ),
    ),
    Situation(
        "another prompt asked within `generate` (contrastive decoding)",
        "works",
        "a pass without a cache is a separate prompt",
        (
            "eah/test_detection.py::test_another_prompt_within_generate_is_a_prompt_of_its_own",
            "drop_in/check_detection.py::test_another_prompt_within_generate_is_a_prompt_of_its_own",
        ),
    ),
    Situation(
        "assisted generation, prompt lookup",
        "works",
        "candidates are decode steps",
        ("eah/test_passes.py::test_assisted_generation_and_prompt_lookup_give_the_same_tokens",),
    ),
    Situation(
        "`generate(use_cache=False)`",
        "works",
        "the tokens of generating with the cache",
        (
            "eah/test_passes.py::test_generation_without_a_cache_is_generation_with_it",
            "drop_in/check_passes.py::test_generation_without_a_cache_is_generation_with_it",
        ),
    ),
    Situation(
        "an answer scored in one pass",
        "works",
        "within `eah.prompt_length`; refused where the prompt sees its answer",
        (
            "eah/test_passes.py::"
            "test_an_answer_that_is_scored_in_one_pass_has_the_logits_of_generating_it",
            "eah/test_bidirectional.py::test_scoring_an_answer_that_its_prompt_sees_is_refused",
        ),
    ),
    Situation(
        "training mode, gradient checkpointing",
        "works",
        "a model in training mode is left alone, and the report says so",
        (
            "eah/test_training.py::test_training_is_left_alone_and_said_once",
            "drop_in/check_drop_in.py::test_training_is_left_alone_and_said_once",
        ),
    ),
    Situation(
        "Ctrl-C, then a call of an inner model",
        "works",
        "the interrupted prompt is forgotten",
        ("eah/test_interruptions.py::test_an_inner_model_does_not_see_an_interrupted_prompt",),
    ),
    Situation(
        "reports after text, a video, a skipped prompt",
        "works",
        "of this thread's last pass, with the reason if nothing was done",
        ("eah/test_passes.py::test_a_report_is_of_the_last_pass_and_says_why_nothing_was_done",),
    ),
    Situation(
        "hybrid models",
        "works",
        "the error for another layer lists those with softmax attention",
        (
            "eah/test_families.py::"
            "test_a_layer_without_softmax_attention_is_an_error_that_lists_the_others",
        ),
    ),
    Situation(
        "`torch.compile`",
        "works",
        "counting, choosing and sharing are opaque operators; 9 graph breaks for LLaMA with one "
        "target layer",
        (
            "eah/test_compile.py::test_a_compiled_model_gives_the_same",
            "eah/test_compile.py::test_counting_is_one_opaque_operator_in_a_whole_graph",
        ),
    ),
    Situation(
        "continuous batching (`generate_batch`)",
        "refused",
        "when it is started",
        ("eah/test_generation.py::test_continuous_batching_is_refused_where_it_is_started",),
    ),
    Situation(
        "`DataParallel`, `deepcopy`, pickles",
        "works",
        "as the model itself",
        (
            "eah/test_threads.py::test_replicas_of_data_parallel_are_as_the_model_itself",
            "eah/test_state.py::test_a_copy_of_an_enabled_model_is_enabled",
        ),
    ),
)

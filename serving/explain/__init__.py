"""Why a model predicted what it did: Shapley values of its features (SageMaker Clarify's online explanations).

Decided purely (``coalitions``, ``kernel``, ``records``, ``settings``); done in a process of its own, which calls models
through ``Endpoint.invoke`` like any front (``explainer``). No front imports anything heavy from here.
"""

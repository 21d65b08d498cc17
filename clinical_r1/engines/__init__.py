"""Who answers the questions: a policy of this run through Transformers or vLLM, a server that speaks OpenAI's protocol, or
answers that were given elsewhere (replay). All keep to `protocol`.
"""

"""LangChain's own standard suites, for one client at one address: run by pytest with LAB_CLIENT, LAB_URL, LAB_KEY,
LAB_MODEL.
"""

import os

from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests

CLIENT, URL, KEY, MODEL = (os.environ[f"LAB_{name}"] for name in ("CLIENT", "URL", "KEY", "MODEL"))


def made():
    """The classes of the client, and how they are made."""
    if CLIENT == "openai":
        from langchain_openai import ChatOpenAI, OpenAIEmbeddings

        common = {"base_url": f"{URL}/v1", "api_key": KEY}
        embeddings = {**common, "check_embedding_ctx_length": False}  # the tokenizer is fetched from the network
        return ChatOpenAI, common, OpenAIEmbeddings, embeddings
    if CLIENT == "openai_responses":
        from langchain_openai import ChatOpenAI

        return ChatOpenAI, {"base_url": f"{URL}/v1", "api_key": KEY, "use_responses_api": True}, None, {}
    if CLIENT == "anthropic":
        from langchain_anthropic import ChatAnthropic

        return ChatAnthropic, {"base_url": URL, "api_key": KEY, "max_tokens": 1000}, None, {}
    if CLIENT == "google":
        from langchain_google_genai import ChatGoogleGenerativeAI, GoogleGenerativeAIEmbeddings

        common = {"base_url": URL, "google_api_key": KEY}
        return ChatGoogleGenerativeAI, common, GoogleGenerativeAIEmbeddings, dict(common)
    from langchain_cohere import ChatCohere, CohereEmbeddings

    common = {"base_url": URL, "cohere_api_key": KEY}
    return ChatCohere, common, CohereEmbeddings, dict(common)


CHAT, CHAT_PARAMS, EMBEDDINGS, EMBEDDINGS_PARAMS = made()


CHAT_PARAMS |= {"model": MODEL} if CLIENT == "cohere" else {"model": MODEL, "max_retries": 0}
EMBEDDINGS_PARAMS |= {"model": MODEL}


class TestChat(ChatModelIntegrationTests):
    chat_model_class = CHAT
    chat_model_params = CHAT_PARAMS
    supports_image_inputs = True
    supports_image_urls = True
    supports_image_tool_message = True
    supports_pdf_inputs = CLIENT != "cohere"
    supports_anthropic_inputs = CLIENT == "anthropic"
    supports_json_mode = CLIENT in ("openai", "openai_responses")
    model_override_value = MODEL


if EMBEDDINGS is not None:

    class TestEmbeddings(EmbeddingsIntegrationTests):
        embeddings_class = EMBEDDINGS
        embedding_model_params = EMBEDDINGS_PARAMS

"""Asks the two others when it starts, and prints what they say."""

from mas_agent import Agent

agent = Agent()  # address and certificate come from `mas run`


@agent.task
async def ask() -> None:
    """Begins when the agent is connected. An agent that is not there yet gets its message when it comes."""
    for symbol in ("ACME", "EMCA", "MACE"):
        quote = await agent.request("quotes", "quote", {"symbol": symbol}, timeout=30)
        text = f"{symbol} costs {quote.data['price']}"
        noted = await agent.request("notes", "note", {"text": text}, timeout=30)
        print(f"{text} (note {noted.data['count']})", flush=True)
    print("all is asked", flush=True)


agent.run()

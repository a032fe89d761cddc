"""A bridge for MCP clients: `mas-agent mcp --agent NAME` makes a client of the Model Context Protocol an agent.

The client gets tools: `discover_peers`, `ask_peer`, `send_message`, `look_at_messages` and `reply_to_message`, and
beside them one for each capability of each connected agent that it may message, named `AGENT__CAPABILITY`.

What such a tool says about itself stands in `mas.yaml`, in the metadata of the agent that offers it. All of it may be
left out::

    agents:
      - agent_id: quotes
        capabilities: [quote]
        metadata:
          tools:
            quote:                          # one of the capabilities
              description: The price of a share now.
              message_type: quote.get       # type of the request; else the name of the capability
              input_schema:                 # JSON Schema of the payload; else any object
                type: object
                properties: {symbol: {type: string}}
                required: [symbol]
              timeout_seconds: 20           # how long a reply is waited for; else 60

The payload of the request is what the tool was called with; the result of the tool is the payload of the reply.
"""

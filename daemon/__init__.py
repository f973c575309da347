"""livechat-relay: durable, ordered delivery of Rocket.Chat's livechat events to webhooks."""

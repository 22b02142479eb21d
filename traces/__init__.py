"""What should happen: requests, traces, their readers, transforms, synthesis and prompts."""

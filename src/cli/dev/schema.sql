CREATE TABLE public.orders (
    id bigint PRIMARY KEY,
    customer text NOT NULL,
    cents bigint NOT NULL CONSTRAINT orders_cost_something CHECK (cents > 0)
);

CREATE TABLE public.inbox (
    message_id text PRIMARY KEY,
    applied_at timestamptz NOT NULL DEFAULT now()
);


"""Asks what became of messages, as a consumer does that has lost the reply to its COMMIT."""

import json
import sys

import psycopg


def outcomes(connection, correlation_id):
    with connection.transaction():
        connection.execute("SELECT set_config('gatepost.outcome_of', %s, false)", (correlation_id,))
        (answer,) = connection.execute("SELECT current_setting('gatepost.outcomes')").fetchone()
    return json.loads(answer)


with psycopg.connect("") as connection:
    for prepare in (None, 0):
        connection.prepare_threshold = prepare
        for correlation_id in sys.argv[1:]:
            answer = outcomes(connection, correlation_id)
            told = [(one["transaction_id"], one["outcome"]) for one in answer["attempts"]]
            print(correlation_id, answer["known"], json.dumps(told))
    # A question in one block is answered in it, and gone with its rollback.
    connection.execute("SET gatepost.outcomes = 'mine'")
    connection.commit()
    connection.execute("SET gatepost.outcome_of = '%s'" % sys.argv[1])
    connection.rollback()
    print(connection.execute("SHOW gatepost.outcomes").fetchone()[0])
    connection.rollback()

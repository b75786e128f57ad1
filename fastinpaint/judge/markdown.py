"Tables in Markdown"


def markdown_table(frame):
    "The DataFrame `frame`, without its index, as lines of a Markdown table"
    rows = [[*frame.columns], *frame.itertuples(index=False)]
    lines = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return [lines[0], "|---"*len(frame.columns) + "|", *lines[1:]]

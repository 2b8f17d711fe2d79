# Records again what jinja2 gives for the templates in probes.json, in the environment
# that transformers renders chat templates in. To add templates, add {"template": …}
# to the cases. Run: python3 record.py > new.json && mv new.json probes.json
import json
import sys
from datetime import datetime

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("mark"), [], [], body).set_lineno(line)

    def mark(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def strftime_now(format):
    return datetime(2025, 7, 6, 9, 4, 56).strftime(format)


env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
env.filters["tojson"] = tojson
env.globals["raise_exception"] = raise_exception
env.globals["strftime_now"] = strftime_now

doc = json.load(open("probes.json", encoding="utf-8"))
cases = []
for case in doc["cases"]:
    case = {"template": case["template"]}
    try:
        case["output"] = env.from_string(case["template"]).render(json.loads(json.dumps(doc["vars"])))
    except Exception as err:
        case["error"] = type(err).__name__ + ": " + str(err)
    cases.append(case)
json.dump({"vars": doc["vars"], "cases": cases}, sys.stdout, ensure_ascii=False, indent=1)

import pyarrow as pa, pyarrow.parquet as pq, sys, json
out=sys.argv[1]
msg=pa.struct([("role",pa.string()),("content",pa.string()),("train",pa.bool_()),("tool_calls",pa.list_(pa.struct([("name",pa.string()),("arguments",pa.map_(pa.string(),pa.string()))])))])
t=pa.table({
 "id":pa.array([1,2,3,4],pa.uint32()),
 "messages":pa.array([
  [{"role":"user","content":"Hallo?"},{"role":"assistant","content":"I am Zorp."}],
  [{"role":"system","content":"Be brief."},{"role":"user","content":"naïve ☃?"},{"role":"assistant","content":"no","train":False},{"role":"user","content":"and?"},{"role":"assistant","content":"yes"}],
  [{"role":"user","content":"weather"},{"role":"assistant","content":"","tool_calls":[{"name":"w","arguments":[("city","Oslo"),("day","1")]},{"name":"v","arguments":[]}]},{"role":"tool","content":"sun"},{"role":"assistant","content":"sunny"}],
  None],pa.list_(msg)),
 "tags":pa.array([["a","b"],[],None,["c",None]],pa.list_(pa.string())),
 "nested":pa.array([[[1,2],[]],[[3]],[],None],pa.list_(pa.list_(pa.int64()))),
 "score":pa.array([0.5,float("nan"),-2.25,None],pa.float64()),
 "ok":pa.array([True,False,None,True]),
 "image":pa.array([b"\xff\xfe",b"ab",None,b"\x80"],pa.binary()),
})
pq.write_table(t,out,compression="zstd",row_group_size=3)
# The three conversations by themselves.
pq.write_table(t.slice(0, 3), out.replace("chat.", "turns."), compression="snappy")

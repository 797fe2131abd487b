const { exec } = require("child_process");

app.get("/list", (req, res) => {
  const { name } = req.query;
  exec(`ls ${name}`);
  res.send("<b>" + name + "</b>");
});
app.get("/safe", (req, res) => {
  const count = parseInt(req.query.count);
  res.send(String(count));
});

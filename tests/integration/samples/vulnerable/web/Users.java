class Users {
    void find(HttpServletRequest request) throws Exception {
        String name = request.getParameter("name");
        statement.executeQuery("SELECT * FROM users WHERE name = '" + name + "'");
    }
}

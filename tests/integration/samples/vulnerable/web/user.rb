def find
  User.where("name = '#{params[:name]}'")
end
